# Imports only: the first bar would start a thread.
import multiprocessing.synchronize

import tqdm.auto
