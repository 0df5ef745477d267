
import numpy as np
from scipy import fft, integrate, interpolate, linalg, ndimage, optimize, signal, sparse, stats
from scipy.cluster import hierarchy
from scipy.spatial import distance

optimize.minimize(lambda v: ((v - 1) ** 2).sum(), np.zeros(2))
optimize.curve_fit(lambda x, a: a * x, [1.0, 2.0], [2.0, 4.1])
integrate.quad(np.sin, 0, 1)
integrate.solve_ivp(lambda t, y: -y, (0, 1), [1.0])
stats.ttest_ind([1.0, 2.0, 3.0], [2.0, 3.0, 4.5])
interpolate.interp1d([0, 1], [0, 1])(0.5)
linalg.inv(np.eye(2))
signal.butter(2, 0.5)
