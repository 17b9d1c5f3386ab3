from greentask.contrib.gunicorn import TaskServer

tasks = TaskServer("tasks", processes=2)
on_starting, on_reload, on_exit = tasks.on_starting, tasks.on_reload, tasks.on_exit
workers = 2
worker_class = "gevent"
