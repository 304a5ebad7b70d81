"""What gunicorn serves by default, as in the official image: `wsgi:application`."""

from flexmeasures.app import create

application = create()
