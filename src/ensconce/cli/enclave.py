"""``ensconce enclave``: package what runs inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensconce.cli.output import print_json, remark, say
from ensconce.cli.owner import Owner, protect

if TYPE_CHECKING:
    from ensconce.enclave.show import Shown

__all__ = ["app"]

app = typer.Typer(help="What runs inside: image, manifest, measurement, signature.", no_args_is_help=True)
app.callback()(protect)

_HERE = Path()
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]


@app.command("build")
def build(
    owner: Owner = _HERE, json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False
) -> None:
    """Stage the server, render and lint its manifest, measure and sign it, into the bundle for the host.

    Examples:

      ensconce enclave build
    """
    from ensconce.cluster.owner import OwnerFolder

    identity = OwnerFolder.open(owner).build_enclave(lambda step: remark(step))
    if json:
        print_json(identity.to_json_object())
        return
    say(f"mr_enclave   {identity.mr_enclave.hex()}")
    say(f"mr_signer    {identity.mr_signer.hex()}")
    say(f"isv_prod_id  {identity.isv_prod_id}")
    say(f"isv_svn      {identity.isv_svn}")


@app.command("lint")
def lint(
    manifests: Annotated[
        list[Path],
        typer.Argument(metavar="MANIFEST...", help="Manifests: .manifest.sgx, .manifest, .manifest.template."),
    ],
    json: _Json = False,
) -> None:
    """Say what a manifest leaves to the host: each finding with its line, the attack that it opens, and the remedy.

    Takes anybody's manifests: signed or not, templates, of Gramine and of Graphene.

    Exit status: 0 when nothing refuses a manifest, 4 when something does, 2 when one cannot be read.

    Examples:

      ensconce enclave lint bundle/enclave/server.manifest.sgx

      ensconce enclave lint --json app/*.manifest.template | jq -r '.manifests[].findings[].check'
    """
    from ensconce.cli.enclave_lint import lint_files

    lint_files(manifests, json)


@app.command("sign")
def sign(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The signed form: NAME.manifest.sgx.")],
    measured: Annotated[
        Path | None,
        typer.Option(metavar="SIG", help="What gramine-sgx-sign made of it, with a key that was thrown away."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="SIG", help="NAME.sig beside the manifest, unless given.")
    ] = None,
    owner: Owner = _HERE,
    json: _Json = False,
) -> None:
    """Sign an enclave that was built elsewhere, here and with the owner's key, which leaves the keystore for no file.

    The manifest is linted first. Who measured it is trusted for the measurement alone; product, version and debug are
    compared with the manifest.

    Without --measured, the manifest is one for the simulated platform, which is measured here.

    Exit status: 0, or 4 when lint refuses the manifest, 2 when a file or the key is wrong, 3 when SIG is damaged.

    Examples:

      ensconce enclave sign app.manifest.sgx --measured app.sig --output signed/app.sig --owner owner/
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.signing import sign_enclave
    from ensconce.enclave.show import Shown

    name = manifest.name.removesuffix(".manifest.sgx")
    target = output or manifest.with_name(f"{name}.sig")
    shown = Shown(sign_enclave(OwnerFolder.open(owner), manifest, measured, target), name)
    remark(f"signed {target}")
    if json:
        print_json(shown.to_json_object())
    else:
        _print_stanza(shown)


@app.command("measure")
def measure(
    manifest: Annotated[
        Path | None,
        typer.Argument(metavar="[MANIFEST]", help="A .manifest.sgx; the one in the owner's bundle, unless given."),
    ] = None,
    owner: Owner = _HERE,
    json: _Json = False,
) -> None:
    """Measure a built enclave: check every trusted file against its hash, and print what its CPU will say of it.

    Needs no key. An enclave for Gramine is measured by gramine-sgx-sign, which must be on the PATH.

    Exit status: 0, or 6 when a file is not the one that the manifest lists, 2 when one cannot be read.

    Examples:

      ensconce enclave measure bundle/enclave/server.manifest.sgx

      test "$(ensconce enclave measure --json | jq -r .mr_enclave)" = "$EXPECTED"
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.enclave.build import MANIFEST
    from ensconce.enclave.measure import measure_built

    measured = measure_built(manifest if manifest is not None else OwnerFolder.open(owner).bundle / MANIFEST)
    if json:
        print_json({"mr_enclave": measured.mr_enclave.hex(), "platform": measured.platform, "files": measured.files})
        return
    say(f"mr_enclave  {measured.mr_enclave.hex()}")
    say(f"platform    {measured.platform}")
    say(f"files       {measured.files}")


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A SIGSTRUCT (.sig), or the .manifest.sgx beside one.")],
    json: _Json = False,
) -> None:
    """Print whom a signature is for, as a stanza for a policy: measurement, signer, version, attributes.

    The signature is verified, and compared with the manifest where one is named.

    The stanza receives nothing, and refuses a debug enclave, until its owner says otherwise.

    Exit status: 0, or 3 when it is no SIGSTRUCT or its signature does not hold, 2 when a file cannot be read.

    Examples:

      ensconce enclave show bundle/enclave/server.manifest.sgx

      ensconce enclave show app.sig --json | jq -r .mr_enclave
    """
    from ensconce.enclave.show import show as read

    shown = read(file)
    if json:
        print_json(shown.to_json_object())
        return
    _print_stanza(shown)


def _print_stanza(shown: Shown) -> None:
    signed = shown.signed
    say(f"# signed {signed.date.isoformat()}{' for debugging: the host reads its memory' if signed.debug else ''}")
    say(f"# isv_svn {signed.isv_svn}; the stanza takes this and later ones")
    say("# add what it may be given: receives: [model/NAME]")
    say(shown.stanza().rstrip())
