# `import geopy` loads no way to measure distances.
from geopy.distance import geodesic

repr(geodesic((1, 2), (3, 4)).km)
