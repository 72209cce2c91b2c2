"""What OpenAPI has no words for, for the requests that are meant to be good ones.

A rule between two fields, or one that asks what exists, cannot be described; a request that is drawn from the description and breaks
such a rule is refused rightly. These rules are kept here, before the request is sent. Requests that are meant to be bad ones are
left as they are.
"""

import http.client
import itertools
import time

import schemathesis

DEFAULT_TTL_S = 86_400
WAIT_MAX_S = 0.05
PAGES = [f"GET /v1/{what}" for what in ("tasks", "batches", "webhook_endpoints", "webhook_deliveries")]
FRESH = itertools.count(time.time_ns())


def number(value):
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def keep_times(task):
    """A task starts before its deadline, and at one time only."""
    policy = task.get("policy")
    ttl = number(policy.get("ttl_s")) if isinstance(policy, dict) else None
    ttl = DEFAULT_TTL_S if ttl is None else ttl
    delay, at = number(task.get("delay_s")), number(task.get("scheduled_at"))
    if delay is not None and (at is not None or 0 < delay >= ttl):
        del task["delay_s"]
    if at is not None and at >= time.time() + ttl - 60:
        del task["scheduled_at"]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.operation.label == "POST /v1/tasks" and isinstance(case.body, dict):
        keep_times(case.body)
    # A webhook goes where one may; the test lets it go to this machine, where nobody listens. A task's own is for those who have a secret.
    if "/webhook_endpoints" in case.operation.label and isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = "https://127.0.0.1:9/hook"
    if case.operation.label == "POST /v1/tasks" and isinstance(case.body, dict):
        case.body.pop("webhook", None)
    # A name is free once; the same name again would make the same story end otherwise.
    if case.operation.label == "POST /v1/admin/projects" and isinstance(case.body, dict):
        case.body["name"] = f"{case.body['name'][:40]}-{next(FRESH)}"
    # Some tasks do not change for weeks: a run is not the place to wait for them.
    if case.operation.label == "GET /v1/tasks/{id}" and number((case.query or {}).get("wait")) is not None:
        case.query["wait"] = min(case.query["wait"], WAIT_MAX_S)
    # A page starts after something that is there. Drawn ids are not; those of earlier pages are tested by journey::submit.
    if case.operation.label in PAGES and case.query:
        case.query.pop("after", None)


# To Python's library a 101 is an answer like others, and the connection as good as before: it speaks WebSocket now.
check_close = http.client.HTTPResponse._check_close
http.client.HTTPResponse._check_close = lambda answer: answer.status == 101 or check_close(answer)
