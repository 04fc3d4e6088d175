"""Run TensorFlow Serving's own test of its server against the program of argv[2], one test or all.

argv: a checkout of TensorFlow Serving's source, the program, then arguments for the test. Nothing in the source is
changed: it gets the folders that its build would have made.
"""

import os
import runpy
import sys
import tempfile
from pathlib import Path

import tensorflow_serving

source, program = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
runfiles = Path(tempfile.mkdtemp(prefix="runfiles."))
built = runfiles / "tf_serving" / "tensorflow_serving"
(built / "model_servers").mkdir(parents=True)
(built / "model_servers" / "tensorflow_model_server").symlink_to(program)
(built / "servables" / "tensorflow").mkdir(parents=True)
testdata = source / "tensorflow_serving" / "servables" / "tensorflow" / "testdata"
(built / "servables" / "tensorflow" / "testdata").symlink_to(testdata)
os.environ["TEST_SRCDIR"] = str(runfiles)
# The published package has the messages; the test's base class is in the source alone.
tensorflow_serving.__path__.append(str(source / "tensorflow_serving"))
test = source / "tensorflow_serving" / "model_servers" / "tensorflow_model_server_test.py"
sys.argv = [str(test), *sys.argv[3:]]
runpy.run_path(str(test), run_name="__main__")
