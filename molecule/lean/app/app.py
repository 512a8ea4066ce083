"""Never runs: the hosts of this scenario are not provisioned."""
