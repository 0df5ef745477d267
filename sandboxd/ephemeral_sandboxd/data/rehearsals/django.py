# Imports only: settings can be configured once, and that is the user's.
import django.core.management
import django.db.models
import django.http
import django.shortcuts
import django.template
import django.test
import django.urls
import django.views
from django.conf import settings
