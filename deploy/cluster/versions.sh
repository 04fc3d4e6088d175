# What bootstrap.sh installs. Changed together, after the cluster test has passed with the Kubernetes named here.
# shellcheck shell=sh disable=SC2034

# The last minor that runs on containerd 1.x, which is what Debian 12 and Ubuntu 22.04 carry.
KUBERNETES=1.35
FLANNEL=0.28.9
INTEL_DEVICE_PLUGINS=0.35.0
NGINX_GATEWAY_FABRIC=2.6.7

# Flannel's own default; kubeadm must name the same.
POD_NETWORK=10.244.0.0/16
