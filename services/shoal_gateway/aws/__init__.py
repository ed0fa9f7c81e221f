"""What Shoal does on AWS: objects in S3, a fleet's instances in EC2, their ends in autoscaling.

Only `shoal_gateway.aws.clients` imports boto3, and only when it is asked for a client.
"""
