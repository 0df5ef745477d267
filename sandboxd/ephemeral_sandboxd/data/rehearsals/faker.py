# The providers of the usual locale.
from faker import Faker

Faker()
