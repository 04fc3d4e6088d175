"""Importing: a model as others write it becomes a version that an engine here reads.

==========  ==============================================================================
order       what is asked for, and what kind of source it is
run         the command's side: a folder aside, the process that converts, the renaming
child       that process
savedmodel  SavedModel: load, freeze; ``cut``, ``surgery`` and ``strings`` cut off what
            OpenVINO cannot compute
direct      frozen graph, TFLite, ONNX: what OpenVINO reads by itself
convert     OpenVINO's conversion of one file
ports       inputs and outputs of a graph of OpenVINO's, and running one
parts       the signatures that were converted, and the folder made of them
quantise    int8
samples     what original and converted model are compared on
original    whoever computes what the source would have
compare     runs both and judges; ``agreement`` is how far two answers are apart
record      what is written down of all this
==========  ==============================================================================
"""
