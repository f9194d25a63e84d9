"""A network of namespaces for cutting nodes off: one bridge, one namespace and one address per node.

Only for root (or CAP_SYS_ADMIN and CAP_NET_ADMIN); available() tells.
"""
import os
import subprocess


def _ip(*args, check=True):
	r = subprocess.run(["ip", *args], capture_output=True, text=True)
	if check and r.returncode:
		raise RuntimeError("ip %s: %s" % (" ".join(args), r.stderr.strip()))
	return r


def available():
	if os.geteuid() != 0:
		return "needs root"
	name = "wrt%d" % os.getpid()
	try:
		if _ip("netns", "add", name, check=False).returncode:
			return "network namespaces are not allowed here"
		r = _ip("-n", name, "link", "add", "br0", "type", "bridge", check=False)
		return "" if r.returncode == 0 else "no bridge device here"
	except FileNotFoundError:
		return "no ip command"
	finally:
		try:
			_ip("netns", "del", name, check=False)
		except FileNotFoundError:
			pass


class Network:
	def __init__(self, n):
		self.prefix = "wr%d" % os.getpid()
		self.hub = self.prefix + "h"
		self.n = n
		self.made = []
		self._add(self.hub)
		_ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
		_ip("-n", self.hub, "link", "set", "br0", "up")
		for i in range(n):
			ns = self.ns(i)
			self._add(ns)
			_ip("-n", ns, "link", "add", "eth0", "type", "veth", "peer", "name", "p%d" % i, "netns", self.hub)
			_ip("-n", ns, "addr", "add", self.addr(i) + "/24", "dev", "eth0")
			_ip("-n", ns, "link", "set", "lo", "up")
			_ip("-n", ns, "link", "set", "eth0", "up")
			_ip("-n", self.hub, "link", "set", "p%d" % i, "master", "br0")
			_ip("-n", self.hub, "link", "set", "p%d" % i, "up")

	def _add(self, ns):
		_ip("netns", "add", ns)
		self.made.append(ns)

	def ns(self, i):
		return "%sn%d" % (self.prefix, i)

	def addr(self, i):
		return "10.201.77.%d" % (i + 1)

	def prefix_cmd(self, i):
		return ["ip", "netns", "exec", self.ns(i)]

	def cut(self, i):
		"""Packets vanish in both directions; the node sees its own interface up."""
		_ip("-n", self.hub, "link", "set", "p%d" % i, "nomaster")

	def cut_out(self, i):
		"""What node i sends vanishes; what others send still arrives."""
		self._drop(self.ns(i), "eth0")

	def cut_in(self, i):
		"""Nothing arrives at node i; what it sends does at the others."""
		self._drop(self.hub, "p%d" % i)

	def _drop(self, ns, dev):
		"""A queue that has no room for any packet."""
		_ip("netns", "exec", ns, "tc", "qdisc", "replace", "dev", dev, "root", "bfifo", "limit", "1")

	def heal(self, i):
		_ip("-n", self.hub, "link", "set", "p%d" % i, "master", "br0")
		for ns, dev in ((self.ns(i), "eth0"), (self.hub, "p%d" % i)):
			_ip("netns", "exec", ns, "tc", "qdisc", "del", "dev", dev, "root", check=False)

	def destroy(self):
		for ns in reversed(self.made):
			_ip("netns", "del", ns, check=False)
		self.made = []
