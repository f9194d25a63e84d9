#!/usr/bin/python3
"""What applications do on connections: the same on a replicated database as on a plain one, and nothing of it is lost on the way to the other node.

The cases are in test/hosts; each runs on both, then what they saw, the two nodes, and the content are compared. The last ones are of hosts with one
connection, which is the first and the last one."""
import hosts
import hosts_cases
from harness import Test

t = Test(__file__, deadline_s=200)
pairs, alone = hosts.Pairs(t), hosts.Pairs(t, nodes=1, alone=True)
pairs.cases(hosts_cases.USE)
alone.cases(hosts_cases.ALONE, "alone: ")
hosts.run(t, pairs, alone)
