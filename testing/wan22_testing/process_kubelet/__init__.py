"""Nodes of a test cluster whose pods are processes of this machine: many of them, and quick to kill.

Not played: images (a table names a program for each), cgroups and namespaces, hooks, sidecars, logs and exec through
the API server. A pod that asks for what is not played fails and says so.
"""
