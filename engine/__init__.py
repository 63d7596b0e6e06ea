"""Fingerprints, search, alignment and calibration: what astound is made of."""

import os

# Threads of torch and FAISS that wait for each other shall sleep, not spin: beside one other busy
# process spinning made a query forty times as slow, and adding music six times. Read when either
# is loaded, so said before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# numpy multiplies matrices so small that a second thread of OpenBLAS costs more than it saves: it
# doubled the processor time of a query. FAISS has a library of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# onnxruntime's packages send Microsoft what is run with it, and store an id of the computer in the
# user's cache, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
