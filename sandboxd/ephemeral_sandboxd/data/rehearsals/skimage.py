# Its submodules are lazy.
import numpy as np
from skimage import color, exposure, filters, io, measure, morphology, transform

image = np.zeros((16, 16))
image[4:8, 4:8] = 1.0
filters.sobel(image)
transform.resize(image, (8, 8))
measure.label(image > 0.5)
