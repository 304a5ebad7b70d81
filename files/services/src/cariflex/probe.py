"""Health check for containers: ask each address, exit 0 when all answer 200.

Standard library only, so it starts in milliseconds.
"""

import sys
import urllib.error
import urllib.request


def main(url: str) -> int:
    """Print what the service says about itself; 0 when it is well."""
    try:
        with urllib.request.urlopen(url, timeout=4) as answer:  # noqa: S310  the address is the image's own
            print(answer.read().decode())
            return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode())
    except OSError as error:
        print(f"{url}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(max([main(url) for url in sys.argv[1:]]))
