"""Evidence in a file, held against a policy: what ``ensconce policy explain`` needs to be told why."""

from __future__ import annotations

from pathlib import Path

from ensconce.appraisal.bundle import MAX_BUNDLE_SIZE, CollateralBundle
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.pck import read_pck
from ensconce.appraisal.policy_explanation import Explanation, explain
from ensconce.appraisal.policy_file import load_policy
from ensconce.appraisal.revocations import Revocations
from ensconce.appraisal.root import claimed_root, root_named
from ensconce.appraisal.user_cache import collateral_cache
from ensconce.appraisal.vetting import links_of, vet
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import policy_store
from ensconce.cluster.state import open_state
from ensconce.evidence.quote import parse_quote
from ensconce.files import read_bounded
from ensconce.ratls.quote_file import read_quote
from ensconce.times import unix_now

__all__ = ["explain_evidence"]


def explain_evidence(
    evidence: Path, policy_file: Path | None, collateral: str | None, at: int | None, owner: Path
) -> Explanation:
    """Verify evidence and hold it against every line of a policy.

    Args:
        evidence: a quote, or a certificate that carries one, PEM or DER.
        policy_file: the policy; None for the one in force.
        collateral: a bundle file or the URL of a PCCS; None for what the deployment names.
        at: the time to judge for, seconds since 1970; None for now.
        owner: the owner's folder, where it is needed.

    Raises:
        EvidenceError: the evidence is not genuine, under whatever root it claims; or, where the deployment is asked
            for policy or collateral, its servers have once seen a certificate revoked.
        InputError: a file is missing or wrong.
        UnreachableError: there is no collateral to be had.
    """
    quote = read_quote(evidence)
    policy = (
        load_policy(policy_file) if policy_file is not None else policy_store(OwnerFolder.open(owner)).in_force().policy
    )
    source, ca_file = collateral, None
    if source is None:
        source, ca_file = OwnerFolder.open(owner).deployment().platform.collateral_from(owner)
    if "://" in source:
        papers = collateral_cache(policy, source, ca_file=ca_file).get_for(quote)
    else:  # not through the cache, which keeps to the present: this may be about the past
        papers = CollateralBundle.from_json(read_bounded(Path(source), MAX_BUNDLE_SIZE)).get_for(quote)
    parsed = parse_quote(quote)
    root = root_named(claimed_root(parsed), papers)
    verdict = verify_quote(quote, papers, at=unix_now() if at is None else at, root=root)
    if policy_file is None or collateral is None:
        # What this deployment's servers know to be revoked they refuse, whatever this collateral says.
        links = (*links_of(read_pck(parsed).chain, "pck_chain"), *vet(papers, (root.name,)).links)
        Revocations(open_state(OwnerFolder.open(owner)).store).refuse(links)
    return explain(policy, verdict)
