"""The simulated platform: it replaces the CPU and nothing else.

On the vendor's side: ``pki``, ``collateral`` and ``pccs`` (certificates, and documents that judge machines).
On the CPU's side: ``launcher`` and ``measurement`` (what may start), ``enclaves`` and ``daemon`` (the process that
launches and tells enclaves apart), ``quoting``. On the host's side: ``control``. On the enclave's side: ``door``.
"""
