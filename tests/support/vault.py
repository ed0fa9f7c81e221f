"""Secrets Manager as a directory of files, which a test's own ``aws`` reads and writes."""

from shoal.authority import Authority
from shoal.identity import PeerIdentity
from tests.support.boot import PUT

FILES = ("tls.crt", "tls.key", "ca.crt")


NAMES = ("registry", "api", "scheduler", "appmanager", "zookeeper")


ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/{}-AbCdEf"


# Files by the secrets' names; what AWS says of one that is missing.
AWS = """
place={place}
mkdir -p "$place"
while [ $# -gt 0 ]; do
  case "$1" in
    --secret-id | --name) name=${{2##*/}} ;;
    --secret-string) from=${{2#file://}} ;;
    describe-secret | create-secret | put-secret-value | get-secret-value) what=$1 ;;
  esac
  shift
done
name=${{name%-AbCdEf}}
if [ "$what" != create-secret ] && ! [ -e "$place/$name" ]; then
  echo "An error occurred (ResourceNotFoundException): can't find the specified secret" >&2
  exit 254
fi
case "$what" in
  create-secret | put-secret-value) cat "$from" >"$place/$name"; echo "{arn}" ;;
  get-secret-value) cat "$place/$name" ;;
esac
"""


class Vault:
    """An authority, and Secrets Manager beside it."""

    def __init__(self, shell, place):
        self._shell = shell
        self.issued = place / "certs"
        self.secrets = place / "secrets"
        self.authority = Authority.create(self.issued)
        self.issue(*NAMES)
        shell.program("aws", AWS.format(place=self.secrets, arn=ARN.format("$name")))
        # Owners can be given by root only.
        shell.program("chown")

    def issue(self, *names, **options):
        for name in names:
            self.authority.issue(PeerIdentity(name), **options)

    def put(self):
        """What an operator does after each change."""
        done = self._shell.run(lines=f"{PUT} reef {self.issued}")
        return done.stdout

    def of(self, name):
        return [(self.issued / name / file).read_bytes() for file in FILES]
