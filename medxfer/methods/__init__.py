"""What needs several runs: it reads run folders."""
