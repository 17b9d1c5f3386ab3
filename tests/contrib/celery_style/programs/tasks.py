from celery import Celery

app = Celery("tasks", broker="memory://localhost/", backend="cache+memory://")
app.conf.update(task_serializer="json", accept_content=["json"], result_serializer="json", enable_utc=True)


@app.task
def add(x, y):
    return x + y


@app.task
def divide(x, y):
    return x / y
