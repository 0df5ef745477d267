# `import astropy` alone loads little.
from astropy import constants
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

(1 * u.km).to(u.m)
str(SkyCoord(1 * u.deg, 2 * u.deg))
str(Table({"a": [1]}))
