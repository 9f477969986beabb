"""Load generator for any method of any gRPC server.

from medserve_client.loadtest import LoadPlan, run

if __name__ == "__main__":
    result = run(LoadPlan("127.0.0.1:8001", "/medserve.v1.PatientRisk/Predict", [request], rate=500))
    print(result.throughput, result.percentile(99), result.errors)
"""

from medserve_client.loadtest.engine import LoadError, Progress, run
from medserve_client.loadtest.plan import LoadPlan, LoadResult

__all__ = ["LoadError", "LoadPlan", "LoadResult", "Progress", "run"]
