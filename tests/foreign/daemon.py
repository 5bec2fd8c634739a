"""Starts sshnpd where a directory on a free port and an sshd on a free port are.

sshnpd has no option for either. Its directory connection is one per process, and who makes it first decides
where it goes; the sshd's port is a default argument. Everything else is the program as it is installed.

    daemon.py DIRECTORY_HOST DIRECTORY_PORT SSHD_PORT [sshnpd's own options]
"""

import sys

import sshnpd
from at_client.connections.atrootconnection import AtRootConnection

host, port, sshd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
AtRootConnection.get_instance(host, port)
sshnpd.SSHRV.__init__.__defaults__ = (sshd, False)
sys.argv[1:] = sys.argv[4:]
sshnpd.main()
