import io

import imageio
import numpy as np

image = np.zeros((8, 8, 3), np.uint8)
try:
    import imageio.v2 as v2
except ImportError:
    v2 = imageio
for format_ in ("png", "gif"):
    file = io.BytesIO()
    v2.mimwrite(file, [image, image], format="gif") if format_ == "gif" else v2.imwrite(file, image, format="png")
    file.seek(0)
    v2.imread(file)
