"""The least HTTP function in Python, for AWS's own client of the runtime API."""


def handler(event, context):
    return {"statusCode": 200, "body": "hello"}
