//! ○ Whom to ask for a session, and for what.

use std::{str::FromStr, time::Duration};

#[cfg(feature = "held")]
use crate::classic::{generation::Profile, habits::ClientHabits};
use crate::{
    at::AtSign,
    cli::Failure,
    np::{
        ids::{BadId, DeviceName},
        session::Terms,
    },
    text::endpoint::Endpoint,
};

/// Longest wait for the answers to one question, in seconds, unless --timeout says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Bounds of what somebody may ask for instead.
pub const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// See [`LEAST_PATIENCE`].
pub const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// Whom to meet, and where.
#[derive(Clone, Debug)]
pub struct Whom {
    /// The device's atSign.
    pub to: AtSign,
    /// Which of its devices.
    pub device: DeviceName,
    /// The rendezvous.
    pub via: AtSign,
    /// Longest wait for the answers to one question.
    pub patience: Duration,
    /// What the session must have, and in whose words it is asked for.
    pub terms: Terms,
    /// The generation that the client is held to.
    #[cfg(feature = "held")]
    pub habits: ClientHabits,
}

/// What a person insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nobody on the way can change what passes without being found out.
    Authenticated,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "authenticated" => Ok(Self::Authenticated),
            _ => Err("what can be required is: authenticated".to_owned()),
        }
    }
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// The device's sshd.
    Ssh(Details),
    /// Any port, as the device sees it.
    Tunnel {
        /// What to open there.
        target: &'a Endpoint,
        /// How long the session may stand without a connection.
        timeout: Duration,
    },
}

/// What is wanted of the daemon besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details {
    /// The user name that it publishes.
    pub user_name: bool,
    /// What it can do, even where the session does not depend on it.
    pub features: bool,
}

impl Whom {
    /// From the words of a command line; the environment's `NOPORTS_VIA` stands in for the rendezvous.
    ///
    /// # Errors
    /// A misuse that names the word.
    pub fn parse(
        to: &str,
        device: Option<&str>,
        via: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let via = via.map(str::to_owned).or_else(|| {
            std::env::var("NOPORTS_VIA")
                .ok()
                .filter(|via| !via.is_empty())
        });
        let (to, device) = device_at(to, device)?;
        let via = via.ok_or_else(|| Failure::misuse("no rendezvous given").hint("--via @rv_eu"))?;
        #[cfg(feature = "held")]
        let habits = Profile::of_environment(|profile| profile.client)?;
        Ok(Self {
            to,
            device,
            via: via.parse()?,
            patience: timeout.clamp(LEAST_PATIENCE, MOST_PATIENCE),
            #[cfg(feature = "held")]
            terms: habits.terms,
            #[cfg(not(feature = "held"))]
            terms: Terms::default(),
            #[cfg(feature = "held")]
            habits,
        })
    }
}

/// A device in our own notation, `pi1@fleet`, or its atSign and its name apart.
///
/// # Errors
/// A misuse that names the word, also where the two name different devices.
pub fn device_at(to: &str, device: Option<&str>) -> Result<(AtSign, DeviceName), Failure> {
    let (name, atsign) = match to.split_once('@') {
        Some((name, atsign)) if !name.is_empty() && !atsign.contains('@') => (Some(name), atsign),
        _ => (None, to),
    };
    if let (Some(name), Some(other)) = (name, device)
        && name != other
    {
        let why = format!("--to names the device {name:?}, and --device {other:?}");
        return Err(Failure::misuse(why).hint(format!("--to @{atsign} --device {other}")));
    }
    let device = name.or(device).unwrap_or(DeviceName::DEFAULT).parse();
    let device = device.map_err(|error: BadId| Failure::misuse(error.to_string()))?;
    Ok((atsign.parse()?, device))
}

impl Want<'_> {
    pub(super) fn details(&self) -> Details {
        match self {
            Self::Ssh(details) => *details,
            Self::Tunnel { .. } => Details::default(),
        }
    }
}
