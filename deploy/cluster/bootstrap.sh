#!/bin/sh
# Makes a bare Debian or Ubuntu machine into a Kubernetes of one node that Ensconce's objects can be applied to.
#
#   bootstrap.sh [--without-sgx] [STEP...]
#
# Steps, in this order unless some are named: machine runtime kubernetes control-plane network sgx gateway.
# Each can be repeated. It needs root, a way to the Internet, and 2 cores and 2 GB of memory beside the replicas'.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=versions.sh
. "$here/versions.sh"
export KUBECONFIG=/etc/kubernetes/admin.conf DEBIAN_FRONTEND=noninteractive

say() { printf '== %s\n' "$*"; }
fail() {
  printf '%s\n' "$*" >&2
  exit 2
}

# What a kubelet and a bridge need of the kernel.
machine() {
  say "kernel: overlay file system, bridged packets seen by nftables, forwarding, no swap"
  printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/ensconce-kubernetes.conf
  modprobe overlay
  modprobe br_netfilter
  printf 'net.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.ipv4.ip_forward = 1\n' \
    >/etc/sysctl.d/90-ensconce-kubernetes.conf
  sysctl --quiet --system
  if [ -n "$(swapon --noheadings --show)" ]; then
    swapoff --all
    say "swap is off until the next start: take it out of /etc/fstab"
  fi
}

# The container runtime, with control groups left to systemd as the kubelet leaves them.
runtime() {
  say "containerd"
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends containerd ca-certificates curl git gpg >/dev/null
  mkdir -p /etc/containerd
  containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' >/etc/containerd/config.toml.new
  grep -q 'SystemdCgroup = true' /etc/containerd/config.toml.new || fail "containerd's default configuration has no SystemdCgroup"
  # Debian's has its plugins elsewhere; the network's pods put theirs here.
  sed -i 's|bin_dir = "/usr/lib/cni"|bin_dir = "/opt/cni/bin"|' /etc/containerd/config.toml.new
  mv /etc/containerd/config.toml.new /etc/containerd/config.toml
  systemctl enable --quiet containerd
  systemctl restart containerd
}

# kubelet, kubeadm, kubectl from the project's own packages, kept at this minor.
kubernetes() {
  say "Kubernetes $KUBERNETES"
  packages=https://pkgs.k8s.io/core:/stable:/v$KUBERNETES/deb/
  key=/etc/apt/keyrings/kubernetes-$KUBERNETES.gpg
  install -d -m 755 /etc/apt/keyrings
  curl --fail --silent --show-error --location "${packages}Release.key" | gpg --dearmor --yes --output "$key"
  echo "deb [signed-by=$key] $packages /" >/etc/apt/sources.list.d/kubernetes.list
  apt-get -qq update
  apt-get -qq install -y --allow-change-held-packages kubelet kubeadm kubectl >/dev/null
  apt-mark hold kubelet kubeadm kubectl >/dev/null
}

# One control plane, which carries pods too.
control_plane() {
  if [ -e "$KUBECONFIG" ]; then
    say "there is a control plane ($KUBECONFIG); kubeadm reset takes it away"
    return
  fi
  say "control plane"
  kubeadm init --pod-network-cidr="$POD_NETWORK" --kubernetes-version="stable-$KUBERNETES" >/var/log/ensconce-kubeadm.log ||
    fail "kubeadm failed; /var/log/ensconce-kubeadm.log says why"
  kubectl taint nodes --all node-role.kubernetes.io/control-plane-
}

# Pods' network. Flannel alone does not enforce NetworkPolicies: without the controller beside it, what keeps a
# replica from talking to anybody but the provisioning server would be words.
network() {
  say "Flannel $FLANNEL, with a controller for NetworkPolicies"
  command -v helm >/dev/null || fail "helm is missing: its project's page says how to install it"
  kubectl create namespace kube-flannel --dry-run=client -o yaml | kubectl apply -f -
  kubectl label --overwrite namespace kube-flannel pod-security.kubernetes.io/enforce=privileged
  helm upgrade --install flannel --namespace kube-flannel --set podCidr="$POD_NETWORK" --set netpol.enabled=true --wait \
    "https://github.com/flannel-io/flannel/releases/download/v$FLANNEL/flannel.tgz"
  kubectl wait --for=condition=Ready node --all --timeout=180s
}

# The resources sgx.intel.com/{enclave,provision,epc}: the plugin gives the devices, its neighbour tells the node's EPC.
# Without node-feature-discovery, which would label the nodes, and without the webhook, which wants cert-manager:
# the device is looked for above, and Ensconce's objects name their resources themselves.
sgx() {
  if [ ! -c /dev/sgx_enclave ] || [ ! -c /dev/sgx_provision ]; then
    fail "no SGX here (/dev/sgx_enclave, /dev/sgx_provision): switch it on in the firmware, or use --without-sgx and simulated enclaves"
  fi
  say "Intel's device plugin $INTEL_DEVICE_PLUGINS"
  plugins=https://github.com/intel/intel-device-plugins-for-kubernetes/deployments
  kubectl label --overwrite node --all sgx.intel.com/capable=true
  kubectl apply -k "$plugins/sgx_plugin/overlays/epc-register?ref=v$INTEL_DEVICE_PLUGINS"
  count=0
  until kubectl get nodes -o jsonpath='{.items[*].status.allocatable}' | grep -q '"sgx.intel.com/epc"'; do
    count=$((count + 1))
    [ $count -lt 60 ] || fail "no node offers sgx.intel.com/epc after 3 minutes: kubectl get pods --all-namespaces"
    sleep 3
  done
}

# Gateway API and its controller. TLS is passed through: the gateway has no certificate and no key.
gateway() {
  say "NGINX Gateway Fabric $NGINX_GATEWAY_FABRIC"
  fabric=https://github.com/nginx/nginx-gateway-fabric
  raw=https://raw.githubusercontent.com/nginx/nginx-gateway-fabric/v$NGINX_GATEWAY_FABRIC/deploy
  kubectl kustomize "$fabric/config/crd/gateway-api/standard?ref=v$NGINX_GATEWAY_FABRIC" | kubectl apply --server-side -f -
  kubectl get customresourcedefinition tlsroutes.gateway.networking.k8s.io >/dev/null 2>&1 || {
    say "TLSRoute is not in that version's standard channel: taking the experimental one"
    kubectl kustomize "$fabric/config/crd/gateway-api/experimental?ref=v$NGINX_GATEWAY_FABRIC" | kubectl apply --server-side -f -
  }
  kubectl apply --server-side -f "$raw/crds.yaml"
  kubectl apply -f "$raw/default/deploy.yaml"
  kubectl wait --namespace nginx-gateway --for=condition=Available deployment --all --timeout=180s
}

with_sgx=yes
steps=
for argument; do
  case $argument in
    --without-sgx) with_sgx= ;;
    machine | runtime | kubernetes | control-plane | network | sgx | gateway) steps="$steps $argument" ;;
    *) fail "no such step: $argument (machine runtime kubernetes control-plane network sgx gateway)" ;;
  esac
done
[ "$(id -u)" = 0 ] || fail "this needs root"
for step in ${steps:-machine runtime kubernetes control-plane network ${with_sgx:+sgx} gateway}; do
  case $step in
    control-plane) control_plane ;;
    *) "$step" ;;
  esac
done
say "done; next: ensconce kubernetes render"
