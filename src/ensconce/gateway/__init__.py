"""The pass-through in front of the replicas: Nginx, or the embedded one."""
