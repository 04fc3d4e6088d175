"""Opinion: collateral, quote verification (a strict layer on dcap-qvl) to a Verdict, policy to an Acceptance."""
