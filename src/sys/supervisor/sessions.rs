//! How many sessions would end with a service, for whoever is about to restart it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_io::Timer;
use async_std::task;

use super::{Herald, herald};

/// Tells how many sessions would end with this process: at once, then once a second at most.
pub fn tell_sessions(count: impl Fn() -> u64 + Send + 'static) {
    if herald().file.is_some() && !IS_COUNTING.swap(true, Ordering::AcqRel) {
        task::spawn(count_again(count));
    }
}

/// Between two numbers of sessions in the file.
const COUNT_AGAIN: Duration = Duration::from_secs(1);
static IS_COUNTING: AtomicBool = AtomicBool::new(false);

/// Until what the file says is so, and nobody else is about to tell.
async fn count_again(count: impl Fn() -> u64) {
    loop {
        let told = count();
        herald().write_sessions(told);
        Timer::after(COUNT_AGAIN).await;
        IS_COUNTING.store(false, Ordering::Release);
        if count() == told || IS_COUNTING.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}

impl Herald {
    fn write_sessions(&self, sessions: u64) {
        let mut told = self.told();
        if let Some(last) = &mut told.last
            && last.sessions.replace(sessions) != Some(sessions)
        {
            self.write_down(&mut told);
        }
    }
}
