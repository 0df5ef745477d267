# `import dateutil` alone loads nothing.
from dateutil import parser, relativedelta, rrule, tz

parser.parse("2024-01-01 10:00")
tz.gettz("Europe/Paris")
