"""Ensconce serves machine-learning models from machines that nobody has to trust.

The map of the house; imports point downwards only (a contract that CI checks):

=============  ==========================================================================================
cli            one thin file per command group
demo           the whole story on one machine, the attacks, the search
cluster        the deployment file, and the processes that it describes on one machine
enclave        what runs inside: image, Gramine manifest, lint, signature, the replica's own program
provisioning   the secret provisioning server, and the enclave's side of it
serving        TensorFlow Serving's API: gRPC, REST, model manager, engines
gateway        Nginx configuration and its process; an embedded pass-through where there is no Nginx
client         connections that prove themselves; channels, transports and predictions on pools of them
platform       where am I? Gramine's ``/dev/attestation``, or the simulated platform
ratls          certificates that carry evidence; channel-bound proof
models         seal, describe, load
appraisal      opinion: collateral, quote verification to a Verdict, policy to an Acceptance
audit          hash-chained log with Merkle inclusion and consistency proofs
keys           custody of the owner's secrets behind one protocol
evidence       bytes to frozen dataclasses, without an opinion
encfile        Gramine's encrypted-file format
state          what several provisioning servers share, in a folder or a database
tfserving      TensorFlow Serving's messages and tensors
addresses      names and addresses of services; where to listen
servables      what models, versions and their keys are called
strict         the model that every file and message of ours derives from
strict_json    JSON with one meaning only
folders        where this user's folders are
times          how a moment is written
trail          what a judgement did, step by step, for reports
markup         HTML pages without script, escaped by how they are made
files          files that are there in full or not at all
errors         one hierarchy; every error knows what was checked, what was found and the remedy
=============  ==========================================================================================
"""

__version__ = "0.1.0"
