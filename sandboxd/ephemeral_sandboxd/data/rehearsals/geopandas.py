
import geopandas
from shapely.geometry import Point

frame = geopandas.GeoDataFrame({"a": [1, 2]}, geometry=[Point(0, 0), Point(1, 1)], crs="EPSG:4326")
repr(frame.to_crs(3857).buffer(1).area)
frame.to_json()
repr(geopandas.sjoin(frame, frame))
try:
    import pyogrio  # reads and writes its files
except ImportError:
    pass
