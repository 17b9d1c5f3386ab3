"""An outbox for Django: ``send_mail.enqueue(...)`` is part of the transaction in which it is called.

With ``"greentask.contrib.django"`` in ``INSTALLED_APPS`` and its migration applied, what a task's ``enqueue`` and
``enqueue_many`` would send to the default client's server goes into the table ``greentask_outbox`` of the database (of
that which the database routers say for ``OutboxRow``). ``manage.py greentask_outbox`` is the relay. Calls go to the
default client, as ever. ``GREENTASK_OUTBOX = False`` in the settings leaves ``enqueue`` to it, too.
"""
