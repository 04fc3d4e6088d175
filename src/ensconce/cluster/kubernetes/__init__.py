"""A deployment on Kubernetes: plain objects, the same by Helm, and how the replicas are.

``values`` is what may be said about it, ``bundle`` reads the owner's part of that from her bundle, ``objects`` and its
neighbours make objects of it, ``status`` asks a cluster.
"""
