#!/bin/sh /etc/rc.common
@MARK@
# shellcheck shell=sh disable=SC2034

START=95
STOP=05
USE_PROCD=1

start_service() {
    mkdir -p /var/run/@NAME@
    chown @USER@ /var/run/@NAME@
    procd_open_instance
    procd_set_param command @COMMAND@
    procd_set_param env NOPORTS_STATE=/var/run/@NAME@/state HOME=@HOME@ @ENVIRONMENT@
    procd_set_param user @USER@
    procd_set_param no_new_privs 1
    # Again and again, three seconds apart.
    procd_set_param respawn 3600 3 0
    procd_set_param stderr 1
    procd_close_instance
}
