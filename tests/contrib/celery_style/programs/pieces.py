from celery import Celery

app = Celery("pieces", broker="memory://", backend="cache+memory://")


@app.task
def add(x, y):
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def subtract(x, y):
    return x - y


@app.task
def create_user(username, first, last):
    return {"username": username, "name": f"{first} {last}"}


@app.task
def import_contacts(user):
    return f"contacts of {user['username']}"


@app.task
def send_welcome(user):
    return f"welcome {user['name']}"


@app.task
def fail(*args):
    raise ValueError("no luck")


@app.task
def collect(values, *more):
    return [values, *more]


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, track_started=True)
def count(self, most):
    for done in range(most):
        self.update_state(state="PROGRESS", meta={"current": done, "total": most})
    return most


@app.task(ignore_result=False)
def nothing(*args, **kwargs):
    pass
