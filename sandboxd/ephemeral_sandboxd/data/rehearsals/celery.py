# An application that is not made the current one, and a task run on the spot.
from celery import Celery

application = Celery("rehearsal", broker="memory://", set_as_current=False)


@application.task(name="rehearsal")
def task():
    return 1


task.apply().get()
