#!/sbin/openrc-run
@MARK@
# shellcheck shell=sh disable=SC2034

name=@NAME@
description=@TITLE@
supervisor=supervise-daemon
# These three are read by a shell once more.
command=@EXECUTABLE@
command_args=@ARGUMENTS@
verify_args=@VERIFY@
command_user=@USER@
respawn_delay=3
respawn_max=0
error_log=/var/log/@NAME@.log
export NOPORTS_STATE=/run/@NAME@/state
@ENVIRONMENT@

depend() {
    use net dns logger
    after firewall
}

start_pre() {
    # With a wrong flag it ends with 2 and would be started again for ever, for supervise-daemon does not look at that.
    su -s /bin/sh "$command_user" -c "exec $command $verify_args" >/dev/null
    [ $? -ne 2 ] || return 1
    checkpath --directory --mode 0755 --owner "$command_user" /run/@NAME@
    checkpath --file --mode 0640 --owner "$command_user" "$error_log"
}
