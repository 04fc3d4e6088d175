"""MLServer: a custom runtime (docs.seldon.ai/mlserver, "Custom Inference Runtimes"); gRPC, V2 protocol, raw tensors."""

from __future__ import annotations

import asyncio
import os

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from openvino_model import load, wanted


class OpenVinoRuntime(MLModel):
    """Computes quick models where they arrive, others in a thread, so that the loop goes on reading."""

    async def load(self) -> bool:
        """Compile the model."""
        self._model = load(self.name)
        self._threaded = not wanted()[self.name]["quick"] and os.environ.get("BENCH_THREAD", "1") == "1"
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Both outputs."""
        images = NumpyCodec.decode_input(payload.inputs[0])
        found = await asyncio.to_thread(self._model.predict, images) if self._threaded else self._model.predict(images)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
