"""One replica alone in a container: it is started, watched, drained, and its end is the container's end.

``run`` puts it together, ``enclaves`` starts what a platform runs, ``health`` says how the replica is. Whoever restarts
containers (kubelet) does what the supervisor does on a machine of one's own.
"""
