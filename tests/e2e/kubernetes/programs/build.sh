#!/bin/sh
# Builds Kubernetes' programs from their Go modules into folder $1, one after the other: minutes of two cores each.
set -eu

into=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
gateway_api=v1.6.3

command -v go >/dev/null || { echo "go is missing: go.mod says which version" >&2; exit 1; }
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
done

# build NAME PACKAGE: what is there already was built from the same versions, or the folder is not ours to fill.
build() {
  [ -x "$into/$1" ] && return
  echo "building $1"
  CGO_ENABLED=0 nice -n 19 go build -p 2 -trimpath -ldflags "$flags" -o "$into/$1.new" "$2"
  mv "$into/$1.new" "$into/$1"
}

if [ "$(cat "$into/versions" 2>/dev/null)" != "$version $gateway_api" ]; then
  rm -rf "$into/gateway-api"
  for name in kube-apiserver kubelet kube-controller-manager kube-scheduler kube-proxy kubectl; do rm -f "$into/$name"; done
  echo "$version $gateway_api" >"$into/versions"
fi

build pause ./pause
for name in kube-apiserver kubelet kube-controller-manager kube-scheduler kubectl kube-proxy; do
  build "$name" "k8s.io/kubernetes/cmd/$name"
done

# The Gateway API's definitions lie in its module; nothing of it is compiled, so it is no requirement of ours.
if [ ! -d "$into/gateway-api" ]; then
  module=$(cd / && go mod download -json "sigs.k8s.io/gateway-api@$gateway_api" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  mkdir "$into/gateway-api.new"
  cp "$module"/config/crd/standard/gateway.networking.k8s.io_*.yaml "$into/gateway-api.new/"
  chmod -R u+w "$into/gateway-api.new"
  mv "$into/gateway-api.new" "$into/gateway-api"
fi
