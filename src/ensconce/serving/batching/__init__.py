"""Requests that wait for the same computation are computed together, in threads or in the event loop.

==========  ===================================================================================
parameters  TensorFlow Serving's ``BatchingParameters``, checked; how much may wait
tasks       requests, and the parts of them that are computed at once
queues      what waits, in which batch, and whose turn it is; no threads, no clock
plans       what is known of a request besides its values
mates       which requests may be merged
padding     inputs of several requests as one, outputs of one as several
pace        how many rows at once pay, learnt; whether a model's rows are independent, tried
compute     one batch through the model
scheduler   all of that, between an event loop and the threads
==========  ===================================================================================
"""
