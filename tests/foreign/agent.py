"""An atsdk program that does what it is told on stdin, so that a test can let it and our client take turns.

One JSON array of strings per line, both ways. The answer begins with "ok", or is
["error", class of the exception, its text].

    ["login", "@alice"]                           ["ok"]
    ["get", "shared", "x", "ns", "@alice", "@bob"]  ["ok", "the value"]
"""

import json
import os
import sys
from queue import Queue
from threading import Thread

from at_client import AtClient
from at_client.common import AtSign
from at_client.common.keys import PublicKey, SelfKey, SharedKey
from at_client.connections.address import Address
from at_client.connections.atrootconnection import AtRootConnection
from at_client.connections.atsecondaryconnection import AtSecondaryConnection
from at_client.connections.notification.atevents import AtEventType
from at_client.util import KeysUtil
from at_client.util.authutil import AuthUtil
from at_client.util.onboardingutil import OnboardingUtil

# For what a monitor ought to bring.
PATIENCE = 30

# atsdk prints what it does; that goes where errors go.
answers = sys.stdout
sys.stdout = sys.stderr


class Agent:
    def __init__(self, root):
        self.root = root
        self.client = None
        self.queue = Queue()

    def activate(self, who, secret):
        """From the one-time secret to a key file, in the order of atsdk's own example."""
        keys = {}
        OnboardingUtil.generate_pkam_keypair(keys)
        OnboardingUtil.generate_encryption_keypair(keys)
        OnboardingUtil.generate_self_encryption_key(keys)
        directory = AtRootConnection.get_instance(*self.root)
        server = AtSecondaryConnection(directory.find_secondary(AtSign(who)))
        server.connect()
        AuthUtil.authenticate_with_cram(server, AtSign(who), secret)
        OnboardingUtil.store_pkam_public_key(server, keys)
        AuthUtil.authenticate_with_pkam(server, AtSign(who), keys)
        OnboardingUtil.store_public_encryption_key(server, who.lstrip("@"), keys)
        OnboardingUtil.delete_cram_key(server)
        KeysUtil.save_keys(who, keys)
        server.disconnect()
        return []

    def login(self, who):
        # Without an address it goes where it always goes.
        where = {"root_address": Address(*self.root)} if self.root else {}
        self.client = AtClient(AtSign(who), queue=self.queue, **where)
        return []

    def put(self, kind, name, namespace, owner, other, text):
        return [self.client.put(key(kind, name, namespace, owner, other), text)]

    def get(self, kind, name, namespace, owner, other):
        wanted = key(kind, name, namespace, owner, other)
        text = self.client.get(wanted)
        return [text, str(wanted.metadata.is_encrypted)]

    def delete(self, kind, name, namespace, owner, other):
        return [self.client.delete(key(kind, name, namespace, owner, other))]

    def scan(self, regex):
        """Every key with its metadata, as atsdk understands them."""
        found = self.client.get_at_keys(regex, fetch_metadata=True)
        assert all(one.metadata.created_at for one in found)
        return [f"{type(one).__name__} {one}" for one in found]

    def notify(self, other, name, namespace, text):
        owner = str(self.client.atsign)
        return [self.client.notify(key("shared", name, namespace, owner, other), text)]

    def monitor(self, regex, since):
        listen = lambda: self.client.start_monitor(regex, last_received_time=int(since))
        Thread(target=listen, daemon=True).start()
        return []

    def hear(self):
        """The next event that is no sign of life: its kind and, for a value, who, key and the plain text."""
        while True:
            event = self.queue.get(timeout=PATIENCE)
            if event.event_type == AtEventType.UPDATE_NOTIFICATION:
                self.client.handle_event(self.queue, event)
            elif event.event_type == AtEventType.DECRYPTED_UPDATE_NOTIFICATION:
                data = event.event_data
                return ["value", data["from"], data["key"], data["decryptedValue"]]
            elif event.event_type == AtEventType.SHARED_KEY_NOTIFICATION:
                self.client.handle_event(self.queue, event)
            elif event.event_type == AtEventType.DELETE_NOTIFICATION:
                return ["delete", event.event_data["from"], event.event_data["key"]]
            elif event.event_type != AtEventType.STATS_NOTIFICATION:
                return [str(event.event_type), json.dumps(event.event_data)]

    def beat(self):
        """What the monitor's own thread does every 30 s."""
        self.client.monitor_connection.execute_command("noop:0", read_the_response=False)
        return []

    def run(self, command):
        return [self.client.secondary_connection.execute_command(command).get_raw_data_response()]


def key(kind, name, namespace, owner, other):
    if kind == "public":
        made = PublicKey(name, AtSign(owner))
    elif kind == "self":
        made = SelfKey(name, AtSign(owner))
    else:
        made = SharedKey(name, AtSign(owner), AtSign(other))
    return made.set_namespace(namespace)


def main():
    agent = Agent((sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else None)
    for line in sys.stdin:
        word, *rest = json.loads(line)
        try:
            answer = ["ok", *getattr(agent, word)(*rest)]
        except Exception as why:
            answer = ["error", type(why).__name__, str(why)]
        print(json.dumps(answer), file=answers, flush=True)
    # Threads of the monitor would keep it alive.
    os._exit(0)


main()
