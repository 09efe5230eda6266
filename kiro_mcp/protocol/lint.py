"""Named findings: why the service would refuse a request, before it is sent."""
