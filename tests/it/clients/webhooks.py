"""OpenAI's own client manages endpoints and unwraps what they are told. What it made of it is printed as JSON.

    webhooks.py manage BASE KEY URL         makes an endpoint, leaves it with two secrets
    webhooks.py unwrap FILE SECRET…         reads {"headers": …, "body": …}
"""

import json
import sys

import openai


def manage(base, key, url):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, _strict_response_validation=True)
    hooks = client.webhooks
    types = hooks.event_types.list().data
    assert {"task.completed", "batch.completed"} <= set(types), types
    made = [hooks.create(name=f"hook {n}", url=url, event_types=["batch.completed"]) for n in range(3)]
    first = made[0]
    assert first.signing_secret.startswith("whsec_") and first.signing_secret.endswith(first.signing_secret_hint[-4:])
    changed = hooks.update(first.id, name="mine", event_types=["batch.completed", "task.completed"])
    assert (changed.name, changed.url, sorted(changed.event_types)) == ("mine", url, ["batch.completed", "task.completed"])
    assert hooks.retrieve(first.id).name == "mine" and not hasattr(hooks.retrieve(first.id), "signing_secret")
    # Page by page, newest first.
    assert [hook.id for hook in hooks.list(limit=1)] == [hook.id for hook in reversed(made)]
    tested = hooks.test(first.id, event_type="batch.completed")
    assert (tested.success, tested.status_code, tested.webhook_endpoint_id) == (True, 204, first.id), tested
    for hook in made[1:]:
        assert hooks.delete(hook.id).deleted
    for refused in (lambda: hooks.retrieve(made[1].id), lambda: hooks.delete(made[1].id)):
        try:
            refused()
        except openai.NotFoundError:
            continue
        raise AssertionError("it is still there")
    try:
        hooks.create(name="bad", url="https://169.254.169.254/", event_types=["batch.completed"])
        raise AssertionError("a private address was taken")
    except openai.BadRequestError as error:
        assert error.param == "url", error
    rotated = hooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != first.signing_secret
    return [first.signing_secret, rotated.signing_secret]


def unwrap(file, *secrets):
    with open(file) as opened:
        told = json.load(opened)
    client = openai.OpenAI(api_key="none is needed")
    events = [client.webhooks.unwrap(told["body"], told["headers"], secret=secret) for secret in secrets]
    try:
        client.webhooks.unwrap(told["body"] + " ", told["headers"], secret=secrets[0])
        raise AssertionError("another body was taken")
    except openai.InvalidWebhookSignatureError:
        pass
    return [[event.id, event.type, event.data.id] for event in events]


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
