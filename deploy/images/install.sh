#!/bin/sh
# What several stages of Dockerfile do. The wheels in /context/wheels are the only packages there are.
set -eu

wheels=/context/wheels
prefix=/opt/ensconce
umask 022
# What is compiled must not depend on the order of a set.
export PYTHONHASHSEED=0

# A wheel of pip runs as it is: neither bases nor images need to have pip.
pip() { # COMMAND ARGUMENTS for the environment $target
  command=$1
  shift
  python3 "$(echo $wheels/pip-*.whl)/pip" --python "$target/bin/python" --isolated --quiet --disable-pip-version-check \
    "$command" --no-cache-dir --no-index --no-deps "$@"
}

locked() { # the packages of requirements/$1.txt
  pip install --find-links $wheels --require-hashes --only-binary :all: --no-compile --root-user-action ignore \
    -r "/context/requirements/$1.txt"
}

compile() { # what can be imported below the folder $1
  $prefix/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash "$1"
}

case $1 in
  wheel) # of the source tree $2, into /dist
    target=/tmp/build
    python3 -m venv --without-pip $target
    locked build
    pip wheel --no-build-isolation --wheel-dir /dist "$2"
    ;;
  packages) # of requirements/$2.txt, into the environment
    target=$prefix
    python3 -m venv --without-pip $target
    locked "$2"
    # Written out, because `set -e` passes over what `!` turns around.
    if $target/bin/python -c 'import openvino_telemetry' 2> /dev/null; then
      echo "openvino_telemetry is installed, and reports usage" >&2
      exit 1
    fi
    # Bytecode that depends on nothing but the source: nobody may write any where it runs, and no clock is asked.
    compile $target/lib
    ;;
  ensconce) # from /dist, into the environment
    target=$prefix
    pip install --no-compile --root-user-action ignore /dist/ensconce-*.whl
    compile $target/lib/python*/site-packages/ensconce
    ;;
  stage) # what enclaves of kind $2 execute, into /opt/staged
    $prefix/bin/python -I /context/stage.py "$2" /opt/staged
    $prefix/bin/python -I /context/sbom.py --staged /opt/staged/names.json > /opt/staged/packages.json
    ;;
  complete) # finds all its libraries: the program $2
    ! ldd "$2" | grep 'not found'
    ;;
  finish) # the rest of image $2: its bill of materials, and the only folder that it may write to
    install -d /opt/skeleton/usr/share/ensconce /opt/skeleton/run
    # Also what is mounted there gets this mode from some runtimes.
    install -d -m 1777 /opt/skeleton/run/ensconce
    $prefix/bin/python -I /context/sbom.py "$2" > /opt/skeleton/usr/share/ensconce/sbom.spdx.json
    ;;
esac
