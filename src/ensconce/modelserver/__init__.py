"""``ensconce-model-server``: a program with the flags of ``tensorflow_model_server``, for models outside any enclave.

============  ====================================================================
flags         the flags, and how a command line is read
options       what the flags ask for, checked together
files         the configuration files that flags name
profiler      TensorFlow's profiler service
program       the server that the options ask for, from start to SIGTERM
certificates  keys and certificates for it, and ``ssl.cfg`` (``ensconce tls issue``)
============  ====================================================================
"""
