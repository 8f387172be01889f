"""The deployed platform, as the journeys see it."""

import contextlib
import json
import os
import time
import urllib.error
import urllib.request

import boto3

# Longer than anything here takes, on a busy machine with two cores.
DEADLINE_SECONDS = 120


class Failed(Exception):
    """What the developer reads."""


def until(what: str, attempt):
    """The first truthy answer of `attempt`."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if answer := attempt():
            return answer
        time.sleep(0.2)
    raise Failed(f"waited {DEADLINE_SECONDS} s in vain for {what}")


class Platform:
    def __init__(self, stack: str):
        self.cloudformation = boto3.client("cloudformation")
        self.dynamodb = boto3.client("dynamodb")
        self.aws_lambda = boto3.client("lambda")
        self.scheduler = boto3.client("scheduler")
        self.sqs = boto3.client("sqs")
        description = self.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        self.stack = stack
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}
        stage = self.outputs["ApiUrl"].rsplit("/", 1)[1]
        # Where the emulator has what AWS has at ApiUrl.
        self.url = f"{os.environ['AWS_ENDPOINT_URL']}/restapis/{self.outputs['ApiId']}/{stage}/_user_request_"

    def parameter(self, name: str) -> str:
        """A parameter of the stack."""
        parameters = self.cloudformation.describe_stacks(StackName=self.stack)["Stacks"][0]["Parameters"]
        return next(parameter["ParameterValue"] for parameter in parameters if parameter["ParameterKey"] == name)

    # ── HTTP

    def call(self, method: str, path: str, body=None, *, token: str | None = None, key: str | None = None, expect=200):
        """`key` is an Idempotency-Key."""
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if key is not None:
            headers["idempotency-key"] = key
        data = None if body is None else json.dumps(body).encode()
        text = self.send(method, path, data, headers, expect)
        return json.loads(text) if text else None

    def lines(self, path: str, token: str) -> list:
        """JSON lines."""
        headers = {"accept": "application/jsonl", "authorization": f"Bearer {token}"}
        return [json.loads(line) for line in self.send("GET", path, None, headers, 200).splitlines()]

    def tell(self, path: str, body: bytes, headers: dict, expect: int) -> None:
        """As a vendor does: these bytes."""
        self.send("POST", path, body, {"content-type": "application/json; charset=utf-8", **headers}, expect)

    def send(self, method: str, path: str, data: bytes | None, headers: dict, expect) -> str:
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        if status not in (expect if isinstance(expect, tuple) else (expect,)):
            raise Failed(f"{method} {path} answered {status}, not {expect}: {text[:2000]}")
        return text

    # ── Secrets

    def put_secret(self, output: str, variables: dict) -> None:
        boto3.client("secretsmanager").put_secret_value(
            SecretId=self.outputs[output], SecretString=json.dumps(variables)
        )

    # ── The table

    def item(self, key: dict) -> dict | None:
        found = self.dynamodb.get_item(TableName=self.outputs["TableName"], Key=key, ConsistentRead=True)
        return found.get("Item")

    def wipe(self) -> None:
        """Deletes every item of an emulated table."""
        if not self.dynamodb.meta.endpoint_url.startswith("http://127.0.0.1:"):
            raise Failed(f"{self.dynamodb.meta.endpoint_url} is no emulator on this machine")
        name = self.outputs["TableName"]
        pages = self.dynamodb.get_paginator("scan").paginate(
            TableName=name, ConsistentRead=True, ProjectionExpression="pk, sk"
        )
        for key in [key for page in pages for key in page["Items"]]:
            self.dynamodb.delete_item(TableName=name, Key=key)

    # ── Queues

    def depth(self, queue: str, hidden: bool = False) -> int:
        names = ["ApproximateNumberOfMessages"] + ["ApproximateNumberOfMessagesNotVisible"] * hidden
        attributes = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)

    @contextlib.contextmanager
    def impatient(self, queue: str):
        """Failed messages come back after a second instead of six times the function's timeout."""
        before = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
        self.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
        try:
            yield
        finally:
            self.sqs.set_queue_attributes(QueueUrl=queue, Attributes=before)

    def redrive(self, dead: str, queue: str) -> None:
        """StartMessageMoveTask, or what it does where the emulator does not know it."""
        try:
            self.sqs.start_message_move_task(SourceArn=self.arn(dead), DestinationArn=self.arn(queue))
        except self.sqs.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "InvalidAction":
                raise
            while messages := self.sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10).get("Messages"):
                for message in messages:
                    self.sqs.send_message(QueueUrl=queue, MessageBody=message["Body"])
                    self.sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])

    def arn(self, queue: str) -> str:
        return self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    # ── Functions

    def functions(self) -> list[str]:
        """Physical names of all functions."""
        pages = self.cloudformation.get_paginator("list_stack_resources").paginate(StackName=self.stack)
        resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
        return [r["PhysicalResourceId"] for r in resources if r["ResourceType"] == "AWS::Lambda::Function"]

    def physical(self, logical: str) -> str:
        resource = self.cloudformation.describe_stack_resource(StackName=self.stack, LogicalResourceId=logical)
        return resource["StackResourceDetail"]["PhysicalResourceId"]

    def live_variables(self, function: str) -> dict:
        live = self.aws_lambda.get_function_configuration(FunctionName=function, Qualifier="live")
        return live["Environment"]["Variables"]

    @contextlib.contextmanager
    def broken(self, logical: str):
        """`live` points at a version that cannot find its table; afterwards at the one before."""
        name = self.physical(logical)
        good = self.aws_lambda.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
        variables = self.live_variables(name)
        self.configure(name, {**variables, "TABLE_NAME": "there-is-no-such-table"})
        bad = self.aws_lambda.publish_version(FunctionName=name)["Version"]
        self.configure(name, variables)
        if bad == good:
            raise Failed("the emulator published no new version")
        self.aws_lambda.update_alias(FunctionName=name, Name="live", FunctionVersion=bad)
        try:
            yield
        finally:
            self.aws_lambda.update_alias(FunctionName=name, Name="live", FunctionVersion=good)

    def configure(self, name: str, variables: dict) -> None:
        self.aws_lambda.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
        until(
            "the function's configuration",
            lambda: self.aws_lambda.get_function_configuration(FunctionName=name)["LastUpdateStatus"] == "Successful",
        )

    # ── Schedules

    def schedules(self) -> dict[str, dict]:
        """The stack's schedules by the job they start."""
        found = {}
        pages = self.cloudformation.get_paginator("list_stack_resources").paginate(StackName=self.stack)
        for resource in (r for page in pages for r in page["StackResourceSummaries"]):
            if resource["ResourceType"] == "AWS::Scheduler::Schedule":
                schedule = self.scheduler.get_schedule(Name=resource["PhysicalResourceId"].rsplit("/", 1)[-1])
                found[json.loads(schedule["Target"]["Input"])["job"]] = schedule
        return found

    def fire(self, schedule: dict) -> None:
        """Does what the schedule does when its time has come."""
        target = schedule["Target"]
        answer = self.aws_lambda.invoke(FunctionName=target["Arn"], Payload=target["Input"].encode())
        if "FunctionError" in answer:
            raise Failed(f"{target['Arn']} failed: {answer['Payload'].read().decode()[:2000]}")

    # ── Mail

    def may_send(self, address: str) -> None:
        """What the owner of an address does once, by clicking on a link of Amazon's."""
        boto3.client("ses").verify_email_identity(EmailAddress=address)
        # AWS asks whether the role may send from the identity; the emulator asks for every identity, so here it may.
        statement = {"Effect": "Allow", "Action": "ses:SendEmail", "Resource": "*"}
        boto3.client("iam").put_role_policy(
            RoleName=self.physical("MailerRole"),
            PolicyName="emulator",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )

    def mails_to(self, recipient: str) -> list[dict]:
        """The mails that the emulator keeps instead of sending them."""
        with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/_ministack/ses/messages", timeout=60) as response:
            by_account = json.loads(response.read())["messages"]
        return [mail for sent in by_account.values() for mail in sent if recipient in mail["To"]]
